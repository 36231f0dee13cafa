"""What crosses a step's border, one file a border, so that a new class does not retrain everything."""

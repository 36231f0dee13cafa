"""What an auditor and an operator ask of a registered model: its history, its evidence, its trail, and whether it can be made again."""

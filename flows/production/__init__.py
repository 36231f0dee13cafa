"""Changes to production: promotion, rollback, approval and the events that follow."""

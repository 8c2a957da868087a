"""What people see: tables, charts and pictures."""

"""What Tessera costs, measured on the machine at hand. Each module is one question and writes one table."""

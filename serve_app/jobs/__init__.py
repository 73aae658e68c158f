"""What survives a restart: jobs of many pictures, their items, and what is made of them on the way."""

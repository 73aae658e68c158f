"""What jobs bear: all that runs them is killed at random moments, and every picture has its one result."""

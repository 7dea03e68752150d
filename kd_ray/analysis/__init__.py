"""What it means: which differences between conditions are real, and how sure that is."""

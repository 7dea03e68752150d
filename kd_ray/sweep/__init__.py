"""What to run: sweep files, trial specs, plans. No torch, no ray."""

"""What results mean: comparisons, power, reports. No torch, no ray."""

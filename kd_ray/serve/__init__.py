"""`kd-ray serve`: the sweeps of a store in a browser. It reads, and never writes; only `cli/` imports it."""

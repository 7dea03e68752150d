"""Which recipe: search spaces, candidates, and the searchers and schedulers of Ray Tune."""

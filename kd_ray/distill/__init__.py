"""How a pack of trials trains."""

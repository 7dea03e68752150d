"""What keeps a store in order: what may be deleted, what is damaged, what two stores have in common."""

"""Templates: from a recipe to an image, a booted and warmed guest, and a snapshot, and the cache that keeps them."""

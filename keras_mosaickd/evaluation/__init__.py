"""Numbers about networks and synthetic images, each computed in one place."""

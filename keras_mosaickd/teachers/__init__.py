"""Teachers: loading them, what they take and give, their features, and training one."""

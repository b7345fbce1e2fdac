"""What runs in a RayJob's head pod."""

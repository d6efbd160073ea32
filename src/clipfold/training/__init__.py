"""The only room that knows there is a loop, a rank zero and a checkpoint."""

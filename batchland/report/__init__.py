"""Pages and texts about one evaluation or one comparison."""

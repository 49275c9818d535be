"""What methods of one kind share: gradients, kernel, influence, learning, pictures."""

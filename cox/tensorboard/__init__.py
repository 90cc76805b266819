"""What a run sends to TensorBoard, and `cox-tensorboard`, which shows it."""

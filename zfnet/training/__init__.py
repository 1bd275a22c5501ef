"""Training and evaluation: configuration, augmentation, the loop, processes, distillation."""

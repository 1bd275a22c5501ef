"""Training and evaluation: configuration, augmentation, the loop, several processes, distillation."""

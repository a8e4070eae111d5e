"""Attention maps, pre-training and fine-tuning: three uses of one loop. Nothing in here sees test data."""

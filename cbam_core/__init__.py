"""The science of cbam-lab as a plain PyTorch library: attention modules, networks, and what explains them."""

"""A trained model for other tools: ONNX, `torch.export` and safetensors."""

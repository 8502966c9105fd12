"""Every setting (`config.yaml`) and the presets (`task/**/*.yaml`): data, no code."""

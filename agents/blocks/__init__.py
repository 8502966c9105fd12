"""Parts that several agents are made of. Each can be used in a model of your own."""

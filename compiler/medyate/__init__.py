"""medyate: fine-tune a pretrained network on the microcontroller itself."""

__version__ = "0.1.0"

"""The project's own decoder, the inverter: a T5 that writes a text for a vector and corrects it; and its training."""

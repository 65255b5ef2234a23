"""The control channel: who speaks (auth), how (channel), and what is said (messages). No tensor travels here."""

"""The stages that commands are put together from: mask, matrix, components, states, maps."""

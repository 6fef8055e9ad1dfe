"""The commands of `modelops`, a module for each: who asks for one waits for its imports alone."""

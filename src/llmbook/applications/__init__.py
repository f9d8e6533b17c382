"""What part V puts to work, a module an application: the code that a chapter there shares with others."""

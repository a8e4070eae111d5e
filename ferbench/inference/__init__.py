"""Uses of finished models: one opened model, whatever it is, is evaluated, shown pictures, examined or exported."""

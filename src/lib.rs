//! longwire: a bridge with long wires.

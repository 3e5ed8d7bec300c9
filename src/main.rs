//! The `longwire` program.
fn main() {}

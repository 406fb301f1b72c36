//! Guards the house rules: what holds for every source file and document of this repository.

mod tidy;

//! Guards the console page and the JavaScript module of `src/web`.

mod console;

//! `vmsync-web-bindgen INPUT.wasm FOLDER`: the ES module around a compiled `vmsync-web`, for pages and for Node.

use anyhow::{Context, Result, bail};
use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(input), Some(folder), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        bail!("usage: vmsync-web-bindgen INPUT.wasm FOLDER");
    };
    Bindgen::new()
        .input_path(&input)
        .web(true)?
        .typescript(true)
        .remove_name_section(true)
        .remove_producers_section(true)
        .generate(&folder)
        .with_context(|| format!("cannot make the JavaScript around {input}"))
}

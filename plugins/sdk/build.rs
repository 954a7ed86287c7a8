//! Encodes the four worlds of `wit/plugin.wit`. `export!` embeds the one that a plugin is of, which makes the linker turn
//! the module into a component with exactly those exports. (`wit_bindgen::generate!` can do this for one world a crate
//! only: the macros that it makes for two worlds have the same names.)

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use wit_component::{StringEncoding, metadata};
use wit_parser::Resolve;

const WORLDS: [&str; 4] = ["plugin", "stateful-plugin", "ticking-plugin", "stateful-ticking-plugin"];

fn main() -> Result<(), Box<dyn Error>> {
    let wit = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../wit");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", wit.display());

    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(&wit)?;
    let mut constants = String::new();
    for world in WORLDS {
        let id = resolve.select_world(&[package], Some(world))?;
        let encoded = metadata::encode(&resolve, id, StringEncoding::UTF8, None)?;
        fs::write(out.join(world), &encoded)?;
        let constant = world.replace('-', "_").to_uppercase();
        writeln!(constants, "/// The world `{world}`, encoded.")?;
        writeln!(constants, "pub const {constant}: [u8; {}] = *include_bytes!({world:?});", encoded.len())?;
    }
    fs::write(out.join("worlds.rs"), constants)?;
    Ok(())
}

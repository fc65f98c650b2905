//! Faults against real programs.

mod chaos_run;
mod cutfs;
mod kill_the_leader;
mod left_behind;
mod power_cut;
mod wal_power_cut;

/// Printed with every failure, so that a run can be repeated: `CHAOS_SEED=… cargo test …`.
fn seed() -> u64 {
    let seed = match std::env::var("CHAOS_SEED") {
        Ok(text) => text.parse().expect("CHAOS_SEED is a number"),
        Err(_) => rand::random(),
    };
    println!("CHAOS_SEED={seed}");
    seed
}

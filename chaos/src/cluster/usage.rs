//! What a process has used so far, as the kernel counts it: [`Usage`].

use anyhow::Context;

/// Processor time and memory of one process. Processor time has a resolution of one tick, 10 ms.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
}

impl Usage {
    pub fn of(pid: i32) -> anyhow::Result<Usage> {
        let stat =
            std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
        parse(&stat).with_context(|| format!("/proc/{pid}/stat: {stat}"))
    }

    /// This process.
    pub fn own() -> anyhow::Result<Usage> {
        Usage::of(i32::try_from(std::process::id())?)
    }
}

impl std::ops::Add for Usage {
    type Output = Usage;

    fn add(self, other: Usage) -> Usage {
        Usage {
            cpu_seconds: self.cpu_seconds + other.cpu_seconds,
            resident_bytes: self.resident_bytes + other.resident_bytes,
        }
    }
}

fn parse(stat: &str) -> Option<Usage> {
    // The second field is the program's name in parentheses and may itself hold blanks and parentheses.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Usage {
        cpu_seconds: (field(14)? + field(15)?) as f64 / ticks_per_second(),
        resident_bytes: field(24)? * page_size(),
    })
}

fn ticks_per_second() -> f64 {
    sysconf(libc::_SC_CLK_TCK) as f64
}

fn page_size() -> u64 {
    sysconf(libc::_SC_PAGESIZE)
}

#[allow(unsafe_code)]
fn sysconf(name: libc::c_int) -> u64 {
    // SAFETY: takes and returns plain numbers.
    let value = unsafe { libc::sysconf(name) };
    u64::try_from(value).expect("Linux defines ticks per second and the page size")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_after_the_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 99 1000 3 0";
        let usage = parse(stat).unwrap();
        assert_eq!(usage.cpu_seconds, 200.0 / ticks_per_second());
        assert_eq!(usage.resident_bytes, 3 * page_size());
    }

    #[test]
    fn this_process_has_memory() {
        assert!(Usage::own().unwrap().resident_bytes > 0);
    }
}

//! What is measured: names, units, and which way is better.

/// Which way a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Larger.
    More,
    /// Smaller.
    Less,
}

/// One number of one candidate in one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// TCP, one stream, Gb/s.
    Tcp1,
    /// TCP, four streams.
    Tcp4,
    /// TCP, one stream, the other way.
    TcpReverse,
    /// UDP in packets of 1400 bytes, the largest rate at which less than 0.5 % are lost.
    Udp,
    /// Frames of 64 bytes at which less than 0.5 % are lost, thousands per second.
    Frames,
    /// Round trip, 100 a second and nothing else, average.
    Ping,
    /// The same, mean deviation.
    PingDeviation,
    /// The same, 99th percentile.
    PingP99,
    /// Round trip of `ping -f`, average.
    PingFlood,
    /// The same, mean deviation.
    PingFloodDeviation,
    /// Round trip beside one saturating TCP stream, average.
    PingLoaded,
    /// The same, mean deviation.
    PingLoadedDeviation,
    /// The same, 99th percentile.
    PingLoadedP99,
    /// CPU seconds of all daemons per 10^9 bytes of payload.
    Cpu,
    /// The same of the whole machine, guests and kernel too.
    Machine,
    /// System calls of all daemons per 10^6 bytes of payload.
    Calls,
    /// Resident memory of the largest daemon, under load.
    Memory,
    /// TCP, four streams over 1 % loss and 20 ms, Mb/s.
    Lossy,
}

impl Figure {
    /// All, as the table shows them.
    pub const ALL: [Figure; 18] = [
        Figure::Tcp1,
        Figure::Tcp4,
        Figure::TcpReverse,
        Figure::Udp,
        Figure::Frames,
        Figure::Ping,
        Figure::PingDeviation,
        Figure::PingP99,
        Figure::PingFlood,
        Figure::PingFloodDeviation,
        Figure::PingLoaded,
        Figure::PingLoadedDeviation,
        Figure::PingLoadedP99,
        Figure::Cpu,
        Figure::Machine,
        Figure::Calls,
        Figure::Memory,
        Figure::Lossy,
    ];

    /// Its name in the JSON.
    pub fn key(self) -> &'static str {
        match self {
            Figure::Tcp1 => "tcp1_gbps",
            Figure::Tcp4 => "tcp4_gbps",
            Figure::TcpReverse => "tcp1_reverse_gbps",
            Figure::Udp => "udp1400_gbps",
            Figure::Frames => "frames64_kpps",
            Figure::Ping => "ping_us",
            Figure::PingDeviation => "ping_mdev_us",
            Figure::PingP99 => "ping_p99_us",
            Figure::PingFlood => "ping_flood_us",
            Figure::PingFloodDeviation => "ping_flood_mdev_us",
            Figure::PingLoaded => "ping_loaded_us",
            Figure::PingLoadedDeviation => "ping_loaded_mdev_us",
            Figure::PingLoadedP99 => "ping_loaded_p99_us",
            Figure::Cpu => "daemons_s_per_gb",
            Figure::Machine => "machine_s_per_gb",
            Figure::Calls => "syscalls_per_mb",
            Figure::Memory => "rss_mb",
            Figure::Lossy => "tcp4_lossy_mbps",
        }
    }

    /// Its head in the table.
    pub fn title(self) -> &'static str {
        match self {
            Figure::Tcp1 => "TCP x1 Gb/s",
            Figure::Tcp4 => "TCP x4 Gb/s",
            Figure::TcpReverse => "TCP -R Gb/s",
            Figure::Udp => "UDP 1400 B Gb/s",
            Figure::Frames => "64 B kframes/s",
            Figure::Ping => "ping us",
            Figure::PingDeviation => "ping mdev us",
            Figure::PingP99 => "ping p99 us",
            Figure::PingFlood => "ping -f us",
            Figure::PingFloodDeviation => "ping -f mdev us",
            Figure::PingLoaded => "ping under load us",
            Figure::PingLoadedDeviation => "ping under load mdev us",
            Figure::PingLoadedP99 => "ping under load p99 us",
            Figure::Cpu => "daemons s/GB",
            Figure::Machine => "machine s/GB",
            Figure::Calls => "syscalls/MB",
            Figure::Memory => "RSS MB",
            Figure::Lossy => "TCP x4, 1 % loss, 20 ms, Mb/s",
        }
    }

    /// Which way it is better.
    pub fn better(self) -> Better {
        match self {
            Figure::Tcp1 | Figure::Tcp4 | Figure::TcpReverse | Figure::Udp | Figure::Frames | Figure::Lossy => {
                Better::More
            }
            Figure::Ping
            | Figure::PingDeviation
            | Figure::PingP99
            | Figure::PingFlood
            | Figure::PingFloodDeviation
            | Figure::PingLoaded
            | Figure::PingLoadedDeviation
            | Figure::PingLoadedP99
            | Figure::Cpu
            | Figure::Machine
            | Figure::Calls
            | Figure::Memory => Better::Less,
        }
    }
}

/// A number with three digits that count.
pub fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

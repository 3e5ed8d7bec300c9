//! How busy this host's processors are: the kernel's pressure stall information.
//!
//! A kernel without it (or with `psi=0`) says nothing, and neither do we.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Input;

/// Where the kernel tells. Read first: Linux `Documentation/accounting/psi.rst`.
const FILE: &str = "/proc/pressure/cpu";
/// Between looks: what the kernel averages over.
const EVERY: Duration = Duration::from_secs(10);
/// Smaller changes are not told (percent).
const WORTH: u8 = 5;

/// Tells the loop how busy the host is, when that changes. Runs on the background runtime.
pub(super) async fn watch(inputs: mpsc::Sender<Input>) {
    let mut told = None;
    loop {
        let load = std::fs::read_to_string(FILE).ok().and_then(|text| parse(&text));
        let is_news = match (told, load) {
            (Some(told), Some(load)) => load.abs_diff(told) >= WORTH,
            (told, load) => told != load,
        };
        if is_news {
            told = load;
            if inputs.send(Input::Pressure(load)).await.is_err() {
                return;
            }
        }
        sleep(EVERY).await;
    }
}

/// The share of the last ten seconds in which some task waited, in percent.
fn parse(text: &str) -> Option<u8> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let share = some.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
    let share = share.parse::<f64>().ok().filter(|share| (0.0..=100.0).contains(share))?;
    Some(share.round() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_ten_seconds_is_read_and_nonsense_is_not() {
        let text =
            "some avg10=12.51 avg60=3.00 avg300=1.00 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(parse(text), Some(13));
        for nonsense in ["", "full avg10=1.00", "some avg60=1.00", "some avg10=x", "some avg10=-1", "some avg10=NaN"] {
            assert_eq!(parse(nonsense), None, "{nonsense:?}");
        }
    }
}

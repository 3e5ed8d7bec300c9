//! One stream as a task: messages and packets both ways until one end closes.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsStream;

use super::Established;
use super::streams::Stream;
use crate::datapath::buf::{Datagrams, Origin};
use crate::io::links::Report;
use crate::io::links::limits::{Messages, Outgoing};
use crate::io::{Input, clock};
use crate::node::LinkEvent;
use crate::wire::message::MESSAGE_MAX;
use crate::wire::stream::{CONTROL, Frame, LENGTH_LEN, frame_len, push_frame};

/// A stream is down when no whole frame came for so long: a node asks its supernode every 5 s.
const IDLE: Duration = Duration::from_secs(15);
/// A link that is given up carries packets for so long: their legs may be on their way to another transport.
const LINGER: Duration = Duration::from_secs(1);
/// For the last bytes to leave.
const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes read at once.
const READ: usize = 32 * 1024;

type Reading = ReadHalf<Box<TlsStream<TcpStream>>>;
type Writing = WriteHalf<Box<TlsStream<TcpStream>>>;

/// Tells that the link stands, carries messages and packets both ways, tells its end.
pub(in crate::io) async fn serve(
    established: Established,
    messages: Messages,
    report: Report,
    outgoing: Option<Outgoing>,
    name: &str,
) {
    let Established { stream, queue, origin, exporter, fingerprint } = established;
    let (reading, writing) = tokio::io::split(stream);
    let remote = queue.address();
    let up = LinkEvent::Up { link: report.link, remote, origin, exporter, fingerprint };
    if !report.tell(up, outgoing).await {
        return;
    }
    let ended = tokio::select! {
        reason = read_all(reading, remote, &report, name) => Some(reason),
        () = write_all(writing, messages, &queue) => None,
    };
    // If our side closed it, the loop knows.
    if let Some(reason) = ended {
        report.down(reason).await;
    }
}

/// Reads frames until the stream ends; says why it did.
async fn read_all(mut reading: Reading, from: SocketAddr, report: &Report, name: &str) -> String {
    let mut bytes = BytesMut::with_capacity(READ);
    let mut heard = clock::now();
    loop {
        bytes.reserve(READ);
        let left = IDLE.saturating_sub(clock::now().since(heard));
        match timeout(left, reading.read_buf(&mut bytes)).await {
            Ok(Ok(0)) => return format!("{name} has closed the link"),
            Ok(Ok(_)) => {}
            // What TLS misses there, its farewell, TCP has said.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return format!("{name} has closed the link");
            }
            Ok(Err(error)) => return format!("{name}: {error}"),
            Err(_elapsed) => return format!("{name} does not answer"),
        }
        let Ok(Frames { messages, packets, count }) = take_frames(&mut bytes, from) else {
            return format!("{name} sent what is no frame");
        };
        if count > 0 {
            heard = clock::now();
        }
        if !packets.is_empty() && report.inputs.send(Input::Datagrams(packets)).await.is_err() {
            return "the daemon ends".into();
        }
        for message in messages {
            if !report.tell(LinkEvent::Message { link: report.link, remote: from, message }, None).await {
                return "the daemon ends".into();
            }
        }
    }
}

/// What came with one read.
struct Frames {
    messages: Vec<Vec<u8>>,
    packets: Datagrams,
    count: usize,
}

/// There is no such frame.
#[derive(Debug)]
struct NoFrame;

/// Takes the whole frames out of `bytes`.
fn take_frames(bytes: &mut BytesMut, from: SocketAddr) -> Result<Frames, NoFrame> {
    let mut found = Frames { messages: Vec::new(), packets: Datagrams::default(), count: 0 };
    while let Some(length) = bytes.first_chunk::<LENGTH_LEN>() {
        let len = frame_len(*length).ok_or(NoFrame)?;
        let Some(frame) = bytes.get(LENGTH_LEN..LENGTH_LEN + len) else { break };
        match Frame::parse(frame).map_err(|_| NoFrame)? {
            Frame::Control(message) => found.messages.push(message.to_vec()),
            Frame::Packet(packet) => found.packets.push(packet, Origin { from, to: None, stride: packet.len() }),
        }
        found.count += 1;
        bytes.advance(LENGTH_LEN + len);
    }
    Ok(found)
}

/// Writes messages, and packets where there is no message, until the loop drops the messages' channel and a moment
/// longer. Waits for [`read_all`] to tell what is wrong if a write fails.
async fn write_all(mut writing: Writing, mut messages: Messages, queue: &Stream) {
    let mut out = Vec::new();
    loop {
        out.clear();
        tokio::select! {
            biased;
            message = messages.recv() => match message {
                Some(message) if message.len() <= MESSAGE_MAX => push_frame(&mut out, &[CONTROL], &message),
                Some(_) => continue,
                None => break,
            },
            () = queue.take(&mut out) => {}
        }
        if !write(&mut writing, &out).await {
            messages.close();
            return std::future::pending().await;
        }
    }
    let linger = async {
        loop {
            out.clear();
            queue.take(&mut out).await;
            if !write(&mut writing, &out).await {
                return;
            }
        }
    };
    tokio::select! {
        () = linger => {}
        () = sleep(LINGER) => {}
    }
    let _broken_or_late = timeout(FAREWELL, writing.shutdown()).await;
}

/// Out to the kernel: nothing more is sealed before that.
/// An end that takes nothing for so long is gone.
async fn write(writing: &mut Writing, out: &[u8]) -> bool {
    let all = async { writing.write_all(out).await.is_ok() && writing.flush().await.is_ok() };
    timeout(IDLE, all).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::stream;
    use crate::wire::relay::RELAY;

    #[test]
    fn frames_are_taken_as_they_become_whole() {
        let mut sent = Vec::new();
        push_frame(&mut sent, &[CONTROL], b"hello");
        push_frame(&mut sent, &[], &[RELAY, 7, 7]);
        push_frame(&mut sent, &[], &[RELAY, 8]);
        let (mut bytes, mut messages, mut packets) = (BytesMut::new(), Vec::new(), Vec::new());
        for byte in sent {
            bytes.extend_from_slice(&[byte]);
            let frames = take_frames(&mut bytes, stream::address(3)).expect("frames");
            messages.extend(frames.messages);
            packets.extend(frames.packets.iter().map(|(packet, origin)| (packet.to_vec(), origin.from)));
        }
        assert_eq!(messages, [b"hello"]);
        assert_eq!(packets, [(vec![RELAY, 7, 7], stream::address(3)), (vec![RELAY, 8], stream::address(3))]);
        assert!(bytes.is_empty());
    }

    #[test]
    fn what_is_no_frame_ends_the_stream_at_once() {
        for junk in [&b"GET / HTTP/1.1\r\n"[..], &[0, 0], &[0xff, 0xff], &[0, 2, 0x04, 0]] {
            assert!(take_frames(&mut BytesMut::from(junk), stream::address(3)).is_err(), "{junk:?}");
        }
    }
}

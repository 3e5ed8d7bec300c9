//! TREE: what stands in front of a frame that members hand on to each other (protocol.md section 5).
//!
//! `flags 1 (bit 0 = returned) | hops 1 | count 2 | root 4 | count x short id 4 | frame`
//!
//! The list names the members that the receiver is to see to, itself not among them. A returned frame comes from a
//! member that could not reach these, and is for nobody else: to the root, or to whoever is nearer to it.

use super::codec::{DecodeError, Reader};
use crate::keys::NodeId;

/// How often a frame may be handed from member to member: four levels of eight copies each reach 4,096 members, two
/// more may be spent on sites.
pub const HOPS_MAX: u8 = 8;
/// Bytes in front of the list.
pub const HEAD_LEN: usize = 8;
/// Bytes of a short id.
pub const SHORT_ID_LEN: usize = 4;
const RETURNED: u8 = 1;

/// The first bytes of a node id. Two members may share one: then it names nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortId(pub u32);

impl ShortId {
    /// Of a node.
    pub const fn of(NodeId([a, b, c, d, ..]): NodeId) -> Self {
        Self(u32::from_be_bytes([a, b, c, d]))
    }
}

/// What stands in front of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Whether it is on its way back to the root, and the receiver has had it.
    pub is_returned: bool,
    /// How often it may still be handed on.
    pub hops: u8,
    /// Who has the frame's sender behind its TAP.
    pub root: ShortId,
}

/// A frame with its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tree<'a> {
    /// What stands in front of the list.
    pub head: Head,
    list: &'a [u8],
    /// The frame.
    pub frame: &'a [u8],
}

impl<'a> Tree<'a> {
    /// Reads it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let (flags, hops) = (reader.u8()?, reader.u8()?);
        let (count, root) = (usize::from(reader.u16()?), ShortId(reader.u32()?));
        if flags & !RETURNED != 0 {
            return Err(DecodeError::Reserved);
        }
        if hops > HOPS_MAX {
            return Err(DecodeError::Range);
        }
        let list = reader.bytes(count * SHORT_ID_LEN)?;
        let head = Head { is_returned: flags & RETURNED != 0, hops, root };
        Ok(Self { head, list, frame: reader.rest() })
    }

    /// The members on the list, as they stand there.
    pub fn members(&self) -> impl Iterator<Item = ShortId> + use<'a> {
        let (ids, _) = self.list.as_chunks::<SHORT_ID_LEN>();
        ids.iter().map(|id| ShortId(u32::from_be_bytes(*id)))
    }
}

/// The frame of what [`write()`] wrote.
pub fn frame(bytes: &[u8]) -> &[u8] {
    Tree::parse(bytes).map_or(bytes, |tree| tree.frame)
}

/// Writes it into `bytes`, instead of what is there. What is beyond 65,535 members is left out.
pub fn write(bytes: &mut Vec<u8>, head: Head, members: impl ExactSizeIterator<Item = ShortId>, frame: &[u8]) {
    let count = u16::try_from(members.len()).unwrap_or(u16::MAX);
    bytes.clear();
    bytes.extend([if head.is_returned { RETURNED } else { 0 }, head.hops]);
    bytes.extend(count.to_be_bytes());
    bytes.extend(head.root.0.to_be_bytes());
    members.take(usize::from(count)).for_each(|member| bytes.extend(member.0.to_be_bytes()));
    bytes.extend_from_slice(frame);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_longer_than_its_message_is_refused() {
        let mut bytes = Vec::new();
        let head = Head { is_returned: false, hops: HOPS_MAX, root: ShortId(7) };
        write(&mut bytes, head, [ShortId(1), ShortId(2)].into_iter(), &[]);
        let tree = Tree::parse(&bytes).expect("whole");
        assert_eq!((tree.head, tree.frame), (head, &[][..]));
        assert_eq!(tree.members().collect::<Vec<_>>(), [ShortId(1), ShortId(2)]);
        assert_eq!(Tree::parse(&bytes[..bytes.len() - 1]), Err(DecodeError::Short));
        bytes[0] = 2;
        assert_eq!(Tree::parse(&bytes), Err(DecodeError::Reserved));
        bytes[..2].copy_from_slice(&[1, HOPS_MAX + 1]);
        assert_eq!(Tree::parse(&bytes), Err(DecodeError::Range));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(tree) = Tree::parse(&bytes) {
                let members = tree.members().collect::<Vec<_>>();
                let mut again = Vec::new();
                write(&mut again, tree.head, members.into_iter(), tree.frame);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}

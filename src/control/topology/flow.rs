//! Max-min fair rates: what flows get when each resource is shared fairly by those that use it.
//!
//! All rates rise together, in proportion to their weights, until a resource is full or a flow has all
//! it wants; those stop, the rest goes on. Elastic traffic of many connections behaves about like this.

/// Levels closer than this are one.
const SAME: f64 = 1e-9;

/// One flow: its share, its wish, and how often it uses which resource.
#[derive(Clone, Debug)]
pub struct Flow<'a> {
    /// Rates of flows that share a resource are in proportion to their weights.
    pub weight: f64,
    /// It never takes more than this.
    pub ceiling: f64,
    /// Index of the resource, and how many times each byte crosses it.
    pub uses: &'a [(usize, f64)],
}

/// The rate of each flow.
pub fn max_min(capacities: &[f64], flows: &[Flow<'_>]) -> Vec<f64> {
    let mut filling = Filling::new(capacities, flows);
    while filling.active > 0 {
        let level = filling.next_level();
        filling.stop_at(level);
    }
    filling.rates
}

struct Filling<'a> {
    capacities: &'a [f64],
    flows: &'a [Flow<'a>],
    rates: Vec<f64>,
    stopped: Vec<bool>,
    /// What stopped flows take of each resource.
    taken: Vec<f64>,
    /// The weights of those that still rise, and how many they are.
    rising: Vec<(f64, usize)>,
    active: usize,
}

impl<'a> Filling<'a> {
    fn new(capacities: &'a [f64], flows: &'a [Flow<'a>]) -> Self {
        let mut rising = vec![(0.0, 0); capacities.len()];
        for (resource, times) in flows.iter().flat_map(|flow| flow.uses.iter().map(move |u| (u.0, u.1 * flow.weight))) {
            rising[resource].0 += times;
            rising[resource].1 += 1;
        }
        let (count, taken) = (flows.len(), vec![0.0; capacities.len()]);
        let stopped = vec![false; count];
        Self { capacities, flows, rates: vec![0.0; count], stopped, taken, rising, active: count }
    }

    /// The rate per weight at which this resource is full.
    fn full_at(&self, resource: usize) -> f64 {
        let left = (self.capacities[resource] - self.taken[resource]).max(0.0);
        let (weight, count) = self.rising[resource];
        // What is left of the weights of those that stopped is rounding.
        if count > 0 { left / weight.max(f64::MIN_POSITIVE) } else { f64::INFINITY }
    }

    fn next_level(&self) -> f64 {
        let resources = (0..self.capacities.len()).map(|resource| self.full_at(resource));
        let rising = self.flows.iter().zip(&self.stopped).filter(|(_, stopped)| !**stopped);
        resources.chain(rising.map(|(flow, _)| flow.ceiling / flow.weight)).fold(f64::INFINITY, f64::min)
    }

    /// Stops every flow that has all it wants, or meets a full resource, at this level.
    fn stop_at(&mut self, level: f64) {
        let edge = level * (1.0 + SAME) + f64::MIN_POSITIVE;
        let full = (0..self.capacities.len()).map(|resource| self.full_at(resource) <= edge).collect::<Vec<_>>();
        for (number, flow) in self.flows.iter().enumerate() {
            let is_content = flow.ceiling / flow.weight <= edge;
            let is_held = flow.uses.iter().any(|(resource, _)| full[*resource]);
            // Nothing limits what is left when no level is found: it takes its wish.
            let ends = is_content || is_held || !level.is_finite();
            if self.stopped[number] || !ends {
                continue;
            }
            self.stopped[number] = true;
            self.active -= 1;
            self.rates[number] = (level * flow.weight).min(flow.ceiling);
            for (resource, times) in flow.uses {
                self.rising[*resource].0 -= times * flow.weight;
                self.rising[*resource].1 -= 1;
                self.taken[*resource] += times * self.rates[number];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(weight: f64, ceiling: f64, uses: &[(usize, f64)]) -> Flow<'_> {
        Flow { weight, ceiling, uses }
    }

    #[test]
    fn a_shared_link_is_split_and_what_one_leaves_goes_to_the_others() {
        let flows = [
            flow(1.0, f64::INFINITY, &[(0, 1.0)]),
            flow(1.0, f64::INFINITY, &[(0, 1.0), (1, 1.0)]),
            flow(1.0, 2.0, &[(1, 1.0)]),
        ];
        assert_eq!(max_min(&[10.0, 6.0], &flows), [6.0, 4.0, 2.0]);
    }

    #[test]
    fn weights_and_repeated_use_count() {
        let flows = [flow(3.0, f64::INFINITY, &[(0, 1.0)]), flow(1.0, f64::INFINITY, &[(0, 2.0)])];
        assert_eq!(max_min(&[10.0], &flows), [6.0, 2.0]);
    }

    #[test]
    fn unlimited_flows_take_what_they_want_and_a_dead_link_gives_nothing() {
        let flows = [flow(1.0, 5.0, &[(0, 1.0)]), flow(1.0, 5.0, &[(1, 1.0)])];
        assert_eq!(max_min(&[f64::INFINITY, 0.0], &flows), [5.0, 0.0]);
    }
}

using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Agent.Measurement;
using static Sidecar.UnitTests.Measurement.Simulated.Ending;

namespace Sidecar.UnitTests.Measurement.Simulated;

/// <summary>Makes paths of every kind, and knows what may be said of them.</summary>
internal static class PathWorld
{
    private const int MostOfGuest = 2;
    private const int MostConnections = 80;
    private const double TestSeconds = 8;

    /// <summary>A path for each seed.</summary>
    public static PathModel Make(int seed)
    {
        var random = new Random(seed);
        bool Chance(int percent) => random.Next(100) < percent;
        T Of<T>(params T[] choices) => choices[random.Next(choices.Length)];
        double Between(double from, double to) => from * Math.Pow(to / from, random.NextDouble());

        var isPostgreSql = Chance(30);
        var hasPayload = isPostgreSql || Chance(45);
        var timeout = Chance(4) ? Of(240.0, 300, 350, 600) : Chance(15) ? 60 : Between(4, 80);
        var spread = Chance(15) ? Between(1.08, 1.7) : 1;
        var isDataOnly = Chance(12);
        var routers = new List<Router>();
        if (Chance(85))
        {
            routers.Add(new Router(timeout, timeout * spread, Chance(80) ? Silent : Reset, isDataOnly, Of(Counted.Both, Counted.Both, Counted.Both, Counted.Client, Counted.Server)));
        }

        if (Chance(20))
        {
            var second = Between(4, 160);
            routers.Add(new Router(second, second, Chance(80) ? Silent : Reset));
        }

        var hasProxy = !isPostgreSql && Chance(12);
        var behind = Between(5, 120);
        var limit = Chance(22) ? Between(4, 160) : (double?)null;
        var isGuest = Chance(25);
        // The places of a PostgreSQL server are counted, and its lost sessions ended, by statements.
        var isLimited = Chance(isGuest ? isPostgreSql ? 0 : 60 : 20);
        var applications = random.Next(1, 12);
        return new PathModel
        {
            Seed = seed,
            Routers = routers,
            HasProxy = hasProxy,
            BehindProxy = hasProxy && Chance(60) ? new Router(behind, behind, DataOnly: true) : null,
            Loss = Of(0, 0, 0, 0, 0.01, 0.01, 0.05, 0.1),
            RoundTripSeconds = Of(0.0002, 0.001, 0.02, 0.08),
            Flushes = Chance(15) ? [.. Enumerable.Range(0, Chance(20) ? 2 : 1).Select(_ => Between(1, timeout * 3))] : [],
            Outage = Chance(10) && Between(1, timeout * 2) is var from ? (from, from + Between(1, 15)) : null,
            ServerLimit = limit,
            ServerEnding = isPostgreSql ? Announced : Chance(70) ? Fin : Reset,
            ServerKeepalive = limit is null && !isDataOnly && Chance(15) ? Between(6, 100) : null,
            Places = isLimited ? applications + 1 + (isGuest ? random.Next(2, 6) : random.Next(3, 20)) : null,
            ApplicationPlaces = applications,
            Refusal = Of(Refusal.Reset, Refusal.Silence, Refusal.AcceptAndClose),
            HasPayload = hasPayload,
            IsPostgreSql = isPostgreSql,
            IsGuest = isGuest,
            Max = Chance(15) ? Between(10, 100) : 700,
        };
    }

    /// <summary>What must never happen, whatever the path does.</summary>
    public static IEnumerable<string> Harms(PathModel model, MeasurementReport? report, SimulatedNetwork network)
    {
        if (model.IsGuest && network.Refused > 0)
        {
            yield return $"{network.Refused} connections of the application were refused";
        }

        if (model.IsGuest && network.MostAtOnce > MostOfGuest)
        {
            yield return $"a guest had {network.MostAtOnce} connections";
        }

        if (network.Open > 0)
        {
            yield return $"{network.Open} connections are left open";
        }

        if (report?.ConnectionsUsed > MostConnections)
        {
            yield return $"{report.ConnectionsUsed} connections";
        }

        // Half the lower bound is when keepalives are sent, or less.
        if (report is { Upper: not null, Confirmed: true } && model.IsSteady && report.Lower.TotalSeconds / 2 > model.Ends().Min(e => e.Shortest))
        {
            yield return "keepalives would come too late";
        }

        if (report is { Class: PathClass.PayloadOnly } && !model.Ends().Any(e => e is { DataOnly: true, IsServer: false } && e.Shortest <= ClockTrial.Length(report.Upper!.Value).TotalSeconds + TestSeconds))
        {
            yield return "living connections would be closed for a class that is wrong";
        }
    }

    /// <summary>What is wrong with what was said of it; nothing where it is right, or said not to be known.</summary>
    public static IEnumerable<string> Errors(PathModel model, MeasurementReport? report)
    {
        var isCalm = model is { IsSteady: true, Places: null };
        if (report is null)
        {
            if (isCalm)
            {
                yield return "nothing was learnt of a calm path";
            }

            yield break;
        }

        var ends = model.Ends();
        var (shortest, longest) = ends.Count == 0 ? (double.MaxValue, double.MaxValue) : (ends.Min(e => e.Shortest), ends.Min(e => e.Longest));
        var (lower, upper) = (report.Lower.TotalSeconds, report.Upper?.TotalSeconds);
        // What is sent again was heard later than it was first sent.
        var slack = (model.Outage is not null ? 2 : model.Loss > 0 ? 1 : 0.05) + model.RoundTripSeconds;
        var isSecretlyRefreshed = model.ServerKeepalive is not null && model.Loss > 0;
        if (lower > longest + slack && !isSecretlyRefreshed)
        {
            yield return $"survives {lower:0.00}, where {longest:0.00} is lost";
        }

        if (upper < shortest - slack)
        {
            yield return $"loses {upper:0.00}, where {shortest:0.00} is survived";
        }

        if (upper is null)
        {
            yield break;
        }

        if (lower > report.Gaps.Where(g => !g.Survived && g.Counts).Min(g => g.Gap.TotalSeconds))
        {
            yield return "the lower bound is longer than a gap that was lost";
        }

        if (longest == shortest && isCalm && !report.Confirmed && !model.IsGuest && model.Max > (shortest * 4) + 60)
        {
            yield return "a calm path's bounds were not seen again";
        }

        if (longest == shortest && isCalm && report.Confirmed && upper - lower > new LadderSettings().WidthAt(report.Lower).TotalSeconds + 0.001)
        {
            yield return $"a calm path has wide bounds: {lower:0.00} to {upper:0.00}";
        }

        // Whoever ends connections at nearly the same time may be the one that was seen.
        var width = new LadderSettings().WidthAt(report.Lower).TotalSeconds;
        var possible = ends.Where(e => e.Shortest <= Math.Max(longest, upper.Value) + width + slack).ToArray();
        var isRight = report.Class switch
        {
            PathClass.SilentDrop => possible.Any(e => e.Ending == Silent),
            // A router may still count while another one, which has forgotten already, lets a test wait for its answer.
            PathClass.Reset => ends.Any(e => e.Ending == Reset && e.Shortest <= Math.Max(longest, upper.Value) + TestSeconds),
            PathClass.PeerCloses => possible.Any(e => e.Ending is Fin or Announced || e is { Ending: Reset, IsServer: true }),
            PathClass.PayloadOnly => true,
            PathClass.NotKnown => !(isCalm && report.Confirmed && ends.Count == 1),
            _ => false,
        };
        if (!isRight)
        {
            yield return $"class {report.ClassName}";
        }

        if (report.KeepaliveRefreshes == true && ends.Count > 0 && ends.MinBy(e => e.Longest) is { DataOnly: true } data && data.Longest * 1.1 < report.Upper!.Value.TotalSeconds)
        {
            yield return "says that keepalives count, and they do not";
        }
    }
}

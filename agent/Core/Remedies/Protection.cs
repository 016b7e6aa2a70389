using System.Collections.Concurrent;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Remedies;

/// <summary>What is remembered of one connection's keepalive options.</summary>
internal sealed class Protection
{
    // The options of a hundred thousand connections are a handful of values: each is kept once.
    private const int MostShared = 1024;
    private static readonly ConcurrentDictionary<Options, Options> Shared = new();
    private static readonly Options None = new(null, null, null);
    private Options _options = None;

    // Most connections are never tested.
    private Test? _test;

    /// <summary>As the application left them; null where they could not be read.</summary>
    public KeepaliveOptions? Original
    {
        get => _options.Original;
        init => _options = Share(_options with { Original = value });
    }

    /// <summary>As the agent set them; null where it left them alone.</summary>
    public KeepaliveOptions? Armed
    {
        get => _options.Armed;
        set => _options = Share(_options with { Armed = value });
    }

    /// <summary>The bound they were made for; when it moves, they follow.</summary>
    public TimeSpan? Bound
    {
        get => _options.Bound;
        set => _options = Share(_options with { Bound = value });
    }

    /// <summary>When they are to be reviewed, monotonic.</summary>
    public TimeSpan NextReview { get; set; }

    /// <summary>Whether the application has changed them since; then they are its own for good.</summary>
    public bool IsApplications { get; set; }

    /// <summary>Reviews in a row that the kernel's own timer made unnecessary.</summary>
    public byte ReviewsSaved { get; set; }

    /// <summary>Nudges that may still follow in the test under way; 0 while there is none.</summary>
    public int NudgesLeft { get => _test?.NudgesLeft ?? 0; set => OfTest.NudgesLeft = value; }

    /// <summary>When the test under way began; null while there is none.</summary>
    public TimeSpan? NudgedSince { get => _test?.NudgedSince; set => OfTest.NudgedSince = value; }

    /// <summary>When the last nudge went out.</summary>
    public TimeSpan LastNudge { get => _test?.LastNudge ?? default; set => OfTest.LastNudge = value; }

    /// <summary>Acknowledgement clock when the test began: when the last acknowledgement before it had come.</summary>
    public TimeSpan AnsweredBefore { get => _test?.AnsweredBefore ?? default; set => OfTest.AnsweredBefore = value; }

    /// <summary>Set for the test only (keepalive = off) and to be put back to <see cref="Original"/> afterwards.</summary>
    public bool IsForTestOnly { get; set; }

    private Test OfTest => _test ??= new Test();

    private static Options Share(Options options)
    {
        if (Shared.TryGetValue(options, out var same))
        {
            return same;
        }

        if (Shared.Count >= MostShared)
        {
            Shared.Clear(); // those in use live on with their connections
        }

        return Shared.GetOrAdd(options, options);
    }

    private sealed record Options(KeepaliveOptions? Original, KeepaliveOptions? Armed, TimeSpan? Bound);

    private sealed class Test
    {
        public int NudgesLeft { get; set; }

        public TimeSpan? NudgedSince { get; set; }

        public TimeSpan LastNudge { get; set; }

        public TimeSpan AnsweredBefore { get; set; }
    }
}

using System.Collections.Concurrent;
using Sidecar.Agent.Judgement;

namespace Sidecar.Agent.Remedies;

/// <summary>What is remembered of one connection's keepalive options.</summary>
public sealed class Protection
{
    // The options of a hundred thousand connections are a handful of values: each is kept once, in a box.
    private const int MostShared = 1024;
    private static readonly ConcurrentDictionary<KeepaliveSettings, object> Shared = new();
    private readonly object? _original;
    private object? _armed;

    // Most connections are never tested.
    private Test? _test;

    /// <summary>As the application left them; null where they could not be read.</summary>
    public KeepaliveSettings? Original
    {
        get => (KeepaliveSettings?)_original;
        init => _original = Share(value);
    }

    /// <summary>As the agent set them; null where it left them alone.</summary>
    public KeepaliveSettings? Armed
    {
        get => (KeepaliveSettings?)_armed;
        set => _armed = Share(value);
    }

    /// <summary>The bound they were made for; when it moves, they follow.</summary>
    public TimeSpan? Bound { get; set; }

    /// <summary>When they are to be looked at again, monotonic.</summary>
    public TimeSpan NextLook { get; set; }

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

    /// <summary>Acknowledgement clock at the test's begin: when the last acknowledgement before it had come.</summary>
    public TimeSpan AnsweredBefore { get => _test?.AnsweredBefore ?? default; set => OfTest.AnsweredBefore = value; }

    /// <summary>Set for the test only (keepalive = off) and to be put back to <see cref="Original"/> afterwards.</summary>
    public bool IsForTestOnly { get; set; }

    private Test OfTest => _test ??= new Test();

    private static object? Share(KeepaliveSettings? settings) =>
        settings is not { } value ? null
        : Shared.TryGetValue(value, out var box) || Shared.Count >= MostShared ? box ?? value
        : Shared.GetOrAdd(value, value);

    private sealed class Test
    {
        public int NudgesLeft { get; set; }

        public TimeSpan? NudgedSince { get; set; }

        public TimeSpan LastNudge { get; set; }

        public TimeSpan AnsweredBefore { get; set; }
    }
}

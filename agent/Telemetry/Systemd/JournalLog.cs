using System.Collections.Concurrent;
using System.Globalization;
using System.Text;
using Microsoft.Extensions.Logging;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Telemetry.Systemd;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Telemetry;

/// <summary>One field of a log event: <c>upstream=orders-db</c> on stderr, <c>CONN_SIDECAR_UPSTREAM</c> in the journal. Null values are left out.</summary>
/// <param name="Name">Lower-case snake_case, ASCII.</param>
internal readonly record struct LogField(string Name, string? Value);

/// <summary>
/// The agent's log: native journal entries with fields where stderr is the journal, otherwise one line per event on
/// stderr. Also the logger of the parts that log through <see cref="ILogger"/>.
/// </summary>
/// <remarks>
/// Events are written by a thread of their own from a bounded queue: a journal or a pipe that does not take our lines
/// must never hold up the loop. What does not fit is dropped and counted.
/// </remarks>
internal sealed class JournalLog : ILoggerProvider
{
    private const int MostQueued = 4096;
    private const string Identifier = "conn-sidecar";

    private readonly BlockingCollection<Entry> _queue = new(MostQueued);
    private readonly Stream _stderr;
    private readonly LogLevel _lowest;
    private readonly Thread _writer;
    private long _dropped;
    private long _accepted;
    private long _written;

    public JournalLog(LogLevel lowest = LogLevel.Information)
        : this(Console.OpenStandardError(), StandardErrorIsJournal(), lowest)
    {
    }

    internal JournalLog(Stream stderr, bool journal, LogLevel lowest = LogLevel.Information)
    {
        _stderr = stderr;
        _lowest = lowest;
        UsesJournal = journal && LibSystemd.Present;
        _writer = new Thread(WriteQueued) { IsBackground = true, Name = "log" };
        _writer.Start();
    }

    /// <summary>True where events go to the journal with their fields.</summary>
    public bool UsesJournal { get; }

    /// <summary>Events dropped because they came faster than they could be written.</summary>
    public long Dropped => Interlocked.Read(ref _dropped);

    /// <summary>Logs one event. Never blocks, never throws.</summary>
    /// <param name="level">Severity.</param>
    /// <param name="message">One line for people. Control characters are escaped.</param>
    /// <param name="messageId">One of <see cref="MessageIds"/>, or null.</param>
    /// <param name="fields">What programs search by.</param>
    public void Write(LogLevel level, string message, string? messageId = null, params ReadOnlySpan<LogField> fields)
    {
        if (level < _lowest || level == LogLevel.None)
        {
            return;
        }

        try
        {
            if (_queue.TryAdd(new Entry(DateTimeOffset.UtcNow, level, message, messageId, fields.ToArray())))
            {
                Interlocked.Increment(ref _accepted);
            }
            else
            {
                Interlocked.Increment(ref _dropped);
            }
        }
        catch (Exception e) when (e is InvalidOperationException or ObjectDisposedException)
        {
            // The log is closed: the process is ending.
        }
    }

    /// <summary>Logs an incident, with all by which one would look for it.</summary>
    public void Incident(Incident incident)
    {
        var withheld = incident.WithheldBy is not null;
        var owner = incident.Pid is { } pid ? string.Create(CultureInfo.InvariantCulture, $" of {incident.Executable ?? "?"} [{pid}]") : "";
        var what = withheld ? $"{incident.Remedy} withheld by {incident.WithheldBy}" : $"{incident.Remedy}: {incident.Outcome}";
        Write(
            withheld ? LogLevel.Information : LogLevel.Warning,
            $"{incident.Upstream}: {incident.Cause} connection{owner}, {what}; {incident.Why}",
            withheld ? MessageIds.Withheld : MessageIds.Incident,
            new LogField("incident", incident.Id),
            new LogField("upstream", incident.Upstream),
            new LogField("verdict", incident.Cause),
            new LogField("remedy", incident.Remedy),
            new LogField("outcome", incident.Outcome),
            new LogField("withheld_by", incident.WithheldBy),
            new LogField("pid", incident.Pid?.ToString(CultureInfo.InvariantCulture)),
            new LogField("executable", incident.Executable),
            new LogField("unit", incident.Unit),
            new LogField("workers", incident.Workers),
            new LogField("local", incident.Local),
            new LogField("peer", incident.Peer),
            new LogField("stuck_seconds", incident.StuckSeconds?.ToString("F3", CultureInfo.InvariantCulture)),
            new LogField("release_seconds", incident.ReleaseSeconds?.ToString("F3", CultureInfo.InvariantCulture)));
    }

    /// <summary>Waits until what was logged so far is written, or the time is over.</summary>
    /// <returns>Whether all of it was written.</returns>
    public bool Flush(TimeSpan timeout)
    {
        var target = Interlocked.Read(ref _accepted);
        return SpinWait.SpinUntil(() => Interlocked.Read(ref _written) >= target, timeout);
    }

    public ILogger CreateLogger(string categoryName) => new CategoryLogger(this, categoryName);

    /// <summary>Closes the log; what is queued is written if that takes no longer than a second.</summary>
    public void Dispose()
    {
        if (_queue.IsAddingCompleted)
        {
            return;
        }

        _queue.CompleteAdding();
        if (_writer.Join(TimeSpan.FromSeconds(1)))
        {
            _queue.Dispose();
        }
    }

    /// <summary>
    /// Whether stderr goes to the journal: systemd then sets JOURNAL_STREAM to its device and inode. The variable
    /// alone does not say so, since it is inherited by children whose stderr goes elsewhere.
    /// </summary>
    private static unsafe bool StandardErrorIsJournal()
    {
        var parts = (Environment.GetEnvironmentVariable("JOURNAL_STREAM") ?? "").Split(':');
        if (parts.Length != 2 || !ulong.TryParse(parts[0], CultureInfo.InvariantCulture, out var device) || !ulong.TryParse(parts[1], CultureInfo.InvariantCulture, out var inode))
        {
            return false;
        }

        const int emptyPath = 0x1000;
        const uint inodeOnly = 0x100;
        var status = stackalloc byte[256];
        if (LibSystemd.statx(2, "", emptyPath, inodeOnly, status) != 0)
        {
            return false;
        }

        var major = *(uint*)(status + 136);
        var minor = *(uint*)(status + 140);
        // makedev(3)
        var actual = (minor & 0xffUL) | ((major & 0xfffUL) << 8) | ((minor & ~0xffUL) << 12) | ((major & ~0xfffUL) << 32);
        return actual == device && *(ulong*)(status + 32) == inode;
    }

    private void WriteQueued()
    {
        foreach (var entry in _queue.GetConsumingEnumerable())
        {
            try
            {
                if (!UsesJournal || !SendToJournal(entry))
                {
                    WriteLine(entry);
                }
            }
            catch (Exception e) when (e is IOException or ObjectDisposedException or UnauthorizedAccessException)
            {
                // Nobody reads stderr any more; the agent's work goes on.
            }

            Interlocked.Increment(ref _written);
        }
    }

    private void WriteLine(Entry entry)
    {
        var line = new StringBuilder(160);
        // Under systemd, when the native protocol failed, "<4>" tells the journal the priority of a plain line.
        if (UsesJournal)
        {
            line.Append(CultureInfo.InvariantCulture, $"<{Priority(entry.Level)}>");
        }

        line.Append(entry.Time.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture))
            .Append(' ').Append(Name(entry.Level)).Append(' ').Append(Printable.Escape(entry.Message));
        foreach (var field in entry.Fields)
        {
            if (field.Value is null)
            {
                continue;
            }

            var value = Printable.Escape(field.Value);
            line.Append(' ').Append(field.Name).Append('=');
            if (value.Length == 0 || value.AsSpan().ContainsAny(' ', '"', '='))
            {
                line.Append('"').Append(value.Replace("\"", "\\\"", StringComparison.Ordinal)).Append('"');
            }
            else
            {
                line.Append(value);
            }
        }

        _stderr.Write(Encoding.UTF8.GetBytes(line.Append('\n').ToString()));
        _stderr.Flush();
    }

    private static unsafe bool SendToJournal(Entry entry)
    {
        var fields = new List<byte[]>(entry.Fields.Length + 4)
        {
            Field("MESSAGE", Printable.Escape(entry.Message)),
            Field("PRIORITY", Priority(entry.Level).ToString(CultureInfo.InvariantCulture)),
            Field("SYSLOG_IDENTIFIER", Identifier),
        };
        if (entry.MessageId is not null)
        {
            fields.Add(Field("MESSAGE_ID", entry.MessageId));
        }

        foreach (var field in entry.Fields)
        {
            if (field.Value is not null)
            {
                fields.Add(Field("CONN_SIDECAR_" + field.Name.ToUpperInvariant(), Printable.Escape(field.Value)));
            }
        }

        var vectors = new LibSystemd.IoVector[fields.Count];
        var pins = new System.Buffers.MemoryHandle[fields.Count];
        try
        {
            for (var i = 0; i < pins.Length; i++)
            {
                pins[i] = fields[i].AsMemory().Pin();
                vectors[i] = new LibSystemd.IoVector { Base = (byte*)pins[i].Pointer, Length = (nuint)fields[i].Length };
            }

            fixed (LibSystemd.IoVector* first = vectors)
            {
                return LibSystemd.sd_journal_sendv(first, vectors.Length) >= 0;
            }
        }
        finally
        {
            foreach (var pin in pins)
            {
                pin.Dispose();
            }
        }
    }

    private static byte[] Field(string name, string value) => Encoding.UTF8.GetBytes($"{name}={value}");

    // syslog(3) priorities.
    private static int Priority(LogLevel level) => level switch
    {
        LogLevel.Critical => 2,
        LogLevel.Error => 3,
        LogLevel.Warning => 4,
        LogLevel.Information => 6,
        _ => 7,
    };

    private static string Name(LogLevel level) => level switch
    {
        LogLevel.Critical => "critical",
        LogLevel.Error => "error",
        LogLevel.Warning => "warning",
        LogLevel.Information => "info",
        _ => "debug",
    };

    private sealed record Entry(DateTimeOffset Time, LogLevel Level, string Message, string? MessageId, LogField[] Fields);

    private sealed class CategoryLogger(JournalLog log, string category) : ILogger
    {
        // The web server speaks up only when something is wrong; our own parts always.
        private readonly LogLevel _lowest = category.StartsWith("Microsoft.", StringComparison.Ordinal) ? LogLevel.Warning : LogLevel.Debug;

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => logLevel != LogLevel.None && logLevel >= _lowest && logLevel >= log._lowest;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            if (!IsEnabled(logLevel))
            {
                return;
            }

            var message = formatter(state, exception);
            
            // Where the loop itself failed, or somebody else's code did, the stack is what tells.
            var told = exception is null ? message : $"{message}: {(logLevel >= LogLevel.Error ? exception.ToString() : $"{exception.GetType().Name}: {exception.Message}")}";
            var ours = !category.StartsWith("Microsoft.", StringComparison.Ordinal);
            log.Write(logLevel, told, ours ? MessageIds.Of(eventId.Id) : null, new LogField("part", category));
        }
    }
}

using Microsoft.Extensions.Logging;
using Shouldly;
using Sidecar.Agent.Action;
using Sidecar.Agent.Core.Remedies;
using Xunit;

namespace Sidecar.UnitTests.Remedies;

/// <summary>A ledger that an earlier run, a full disk or somebody else has left behind never ends the agent.</summary>
public sealed class KeepaliveLedgerTests : IDisposable
{
    private readonly TemporaryDirectory _state = new();
    private readonly List<string> _warnings = [];

    public void Dispose() => _state.Dispose();

    [Theory]
    [InlineData("")]
    [InlineData("{")]
    [InlineData("[]")]
    [InlineData("{\"boot_id\":\"BOOT\",\"sockets\":[null]}")]
    [InlineData("{\"boot_id\":\"BOOT\",\"sockets\":[{\"namespace\":-1}]}")]
    [InlineData("{\"boot_id\":\"BOOT\",\"sockets\":[{\"original\":null}]}")]
    public void A_damaged_file_is_set_aside_with_a_warning(string content)
    {
        var path = _state.Write("keepalives.json", content.Replace("BOOT", File.ReadAllText("/proc/sys/kernel/random/boot_id").Trim(), StringComparison.Ordinal));

        _ = Open();

        _warnings.ShouldHaveSingleItem().ShouldContain("damaged");
        File.Exists(path).ShouldBeFalse();
        File.Exists(path + ".damaged").ShouldBeTrue();
    }

    [Theory]
    [InlineData("null")]
    [InlineData("{\"boot_id\":\"another boot\",\"sockets\":[null]}")]
    [InlineData("{}")]
    public void A_file_of_another_boot_says_nothing(string content)
    {
        _state.Write("keepalives.json", content);
        _ = Open();
        _warnings.ShouldBeEmpty();
    }

    private IReadOnlyList<KeepaliveEntry> Open() => new KeepaliveLedger(_state.Path, new Warnings(_warnings)).Load();

    private sealed class Warnings(List<string> to) : ILogger
    {
        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => logLevel >= LogLevel.Warning;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) => to.Add(formatter(state, exception));
    }
}
